"""The page: the fleet in a browser, without JavaScript, in the admin or by itself."""
