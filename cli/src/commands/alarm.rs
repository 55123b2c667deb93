//! `etcfs alarm`

use clap::{Args, Subcommand};
use etcfs_proto::etcdserverpb::{AlarmRequest, AlarmResponse, alarm_request::AlarmAction};

use crate::{args::Global, connect, error::CliError, output::Output};

/// Shows and clears alarms: a member out of space, or with damaged data.
#[derive(Args, Debug)]
pub(crate) struct AlarmArgs {
    #[command(subcommand)]
    command: AlarmCommand,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum AlarmCommand {
    /// Lists the alarms that stand.
    #[command(after_help = "Example: etcfs alarm list")]
    List,
    /// Clears all alarms, and prints those that it cleared.
    #[command(after_help = "Example: etcfs alarm disarm")]
    Disarm,
}

pub(crate) async fn run(global: &Global, args: AlarmArgs) -> Result<(), CliError> {
    let output = Output::new(global)?;
    let client = connect::client(global)?;
    let ask = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
    let standing = client.maintenance().alarm(ask).await?;
    match args.command {
        AlarmCommand::List => output.alarms(&standing),
        AlarmCommand::Disarm => {
            let mut cleared = AlarmResponse { header: standing.header, alarms: Vec::new() };
            for alarm in standing.alarms {
                let request = AlarmRequest {
                    action: AlarmAction::Deactivate.into(),
                    member_id: alarm.member_id,
                    alarm: alarm.alarm,
                };
                let answer = client.maintenance().alarm(request).await?;
                cleared.header = answer.header;
                cleared.alarms.extend(answer.alarms);
            }
            output.alarms(&cleared)
        }
    }
}
