"""`gptmill schedule`: runs at set times, on a Prefect server or by cron and systemd."""
