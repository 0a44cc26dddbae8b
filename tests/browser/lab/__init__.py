"""Real JupyterLab, a real kernel and the demo model, driven in Chromium."""
