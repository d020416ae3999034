"""Ratings and labels: viewers' ratings, proxies of them, and what damage costs."""
