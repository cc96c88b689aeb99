"""What other backends and Django's own need to run on leases."""
