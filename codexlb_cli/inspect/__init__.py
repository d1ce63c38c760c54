"""Explains and simulates with core's own functions; opens no socket and decides nothing."""
