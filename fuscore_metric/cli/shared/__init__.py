"""What several commands share: options, starting up, running, printing."""
