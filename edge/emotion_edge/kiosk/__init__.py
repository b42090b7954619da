"""Runs the pipeline unattended for months: the loop, its configuration, the watchdog, the board."""
