"""Measurements: ``python -m benchmarks`` runs suites and makes the tables; the scripts run once each."""
