//! `etcfs up`: the whole first experience in one command.
