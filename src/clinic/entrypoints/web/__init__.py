"""Two thin Litestar apps, and what they share."""
