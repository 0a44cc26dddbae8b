"""What a user sees, in a real Chromium."""
