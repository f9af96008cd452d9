"""How the command line looks: its commands' help, its tables and messages, its JSON, its progress."""
