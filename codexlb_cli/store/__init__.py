"""What must survive a restart: owners, cooldowns and credentials."""
