"""The project put to the test: faults, outages, long searches. Each runs as a module."""
