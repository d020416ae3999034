"""Fusions that training makes itself: classic methods, drawn and scripted ones."""
