//! A DNS server of a test's own, for SRV records alone.

use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SRV},
};

/// Between two looks whether the test is over.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A question that fits into no answer is none of ours.
const QUESTION_BYTES_MAX: usize = 4096;

/// Hosts and ports by the service's whole name, as `_etcd-client._tcp.example.com`.
pub type Services = HashMap<String, Vec<(&'static str, u16)>>;

/// Answers on 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    pub fn serving(services: Services) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(LOOK_EVERY)).expect("a time");
        let address = socket.local_addr().expect("it is bound");
        let (asked, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, end) = (asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; QUESTION_BYTES_MAX];
            while !end.load(Ordering::Relaxed) {
                let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                let answer = answer(question, &services).to_vec().expect("it is well formed");
                // Who asked may have given up.
                drop(socket.send_to(&answer, from));
            }
        });
        Self { address, asked, over, thread: Some(thread) }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Questions so far.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn answer(question: Message, services: &Services) -> Message {
    let mut answer = question.into_response();
    answer.metadata.authoritative = true;
    let Some(query) = answer.queries.first().cloned() else { return answer };
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    match services.get(&name) {
        None => answer.metadata.response_code = ResponseCode::NXDomain,
        Some(hosts) if query.query_type() == RecordType::SRV => {
            for (host, port) in hosts {
                let target = Name::from_ascii(host).expect("a host's name");
                let record = RData::SRV(SRV::new(0, 0, *port, target));
                answer.add_answer(Record::from_rdata(query.name().clone(), 60, record));
            }
        }
        Some(_) => {}
    }
    answer
}
