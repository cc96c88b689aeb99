"""Configuration: reads a pool's options, policy and credentials from ``DATABASES``."""
