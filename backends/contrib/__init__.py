"""Parts for other packages, which are imported only where these are installed."""
