"""Tests as the users of interpwidgets would write them."""
