"""Launchers: several processes on one machine, TPU VMs, SLURM. README.md of this folder is the runbook."""
