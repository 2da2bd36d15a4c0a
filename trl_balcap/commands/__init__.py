"""The subcommands of `trl-balcap`, one file each: flags, progress, tables, confirmation."""
