"""The page: a shell without data; it asks for a key and talks to the API."""
