"""What every service of the environment shares: settings, logs, health, HTTP, start and stop."""
