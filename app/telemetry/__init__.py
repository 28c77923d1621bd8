"""Logs, traces and metrics of the app and the workers."""
