"""What lets it run unattended for months: the loop, its configuration, the watchdog, the board."""
