"""Recurrent networks on problems that probe their memory."""
