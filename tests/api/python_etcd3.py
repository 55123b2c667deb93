"""What a program that uses Python's etcd3 does with a server; prints each step's outcome."""

import queue
import sys

import etcd3

host, port = sys.argv[1].split(":")
client = etcd3.client(host=host, port=int(port), timeout=20)


def show(step, outcome):
    print(f"{step}: {outcome}", flush=True)


# Basic: put, get, prefix, ranges, delete.
client.put("py/a", "1")
client.put("py/b", "2")
value, meta = client.get("py/a")
show("get", (value, meta.key, meta.version))
show("get nothing", client.get("py/none"))
show("prefix", [value for value, _ in client.get_prefix("py/")])
show("sorted", [value for value, _ in client.get_prefix("py/", sort_order="descend", sort_target="key")])
show("range", [value for value, _ in client.get_range("py/a", "py/b")])
show("replace", (client.replace("py/a", "1", "3"), client.replace("py/a", "1", "4")))
show("put_if_not_exists", (client.put_if_not_exists("py/c", "5"), client.put_if_not_exists("py/c", "6")))
show("delete", (client.delete("py/c"), client.delete("py/c")))
show("delete_prefix", client.delete_prefix("py/").deleted)

# Transactions.
client.put("py/t", "1")
transactions = client.transactions
outcome = client.transaction(
    compare=[transactions.value("py/t") == "1", transactions.version("py/t") > 0],
    success=[transactions.put("py/t", "2"), transactions.get("py/t")],
    failure=[transactions.delete("py/t")],
)
show("txn", (outcome[0], [value for value, _ in outcome[1][1]]))
outcome = client.transaction(
    compare=[transactions.create("py/t") == 0],
    success=[transactions.put("py/t", "3")],
    failure=[transactions.get("py/t"), transactions.delete("py/t")],
)
show("txn", (outcome[0], [value for value, _ in outcome[1][0]]))

# Leases.
lease = client.lease(60)
client.put("py/leased", "1", lease=lease)
show("lease", (lease.ttl, lease.granted_ttl, lease.remaining_ttl > 50, lease.keys))
show("refresh", [answer.TTL for answer in lease.refresh()])
lease.revoke()
show("revoked", client.get("py/leased"))

# Watches: by iterator, by callback, and from a revision of the past.
events, cancel = client.watch_prefix("py/w")
for value in ("1", "2"):
    client.put("py/w/a", value)
client.delete("py/w/a")
seen = [next(events) for _ in range(3)]
show("watch", [(type(event).__name__, event.key, event.value) for event in seen])
cancel()
heard = queue.Queue()
watch_id = client.add_watch_callback("py/w/b", heard.put)
client.put("py/w/b", "1")
show("callback", [(event.key, event.value) for event in heard.get(timeout=20).events])
client.cancel_watch(watch_id)
past, cancel = client.watch("py/w/a", start_revision=seen[0].mod_revision)
show("past", [next(past).value for _ in range(2)])
cancel()

# Locks. That one is waited for is not tried: Debian's etcd3 fails to wait with Debian's tenacity.
first, second = client.lock("py/lock", ttl=60), client.lock("py/lock", ttl=60)
show("lock", (first.acquire(timeout=10), first.is_acquired(), second.is_acquired()))
show("refresh", [answer.TTL for answer in first.refresh()])
show("release", (first.release(), first.is_acquired()))
show("next", (second.acquire(timeout=10), second.release()))

# The server itself.
status = client.status()
show("status", (status.leader.id == next(iter(client.members)).id, status.db_size > 0))
show("members", len(list(client.members)))
client.compact(meta.mod_revision)
try:
    list(client.watch("py/w/a", start_revision=1)[0])
except etcd3.exceptions.RevisionCompactedError as error:
    show("compacted", error.compacted_revision == meta.mod_revision)
show("alarms", list(client.list_alarms()))
show("hash", client.hash() > 0)
client.close()
