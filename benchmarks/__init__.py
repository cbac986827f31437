"""Speed against peers and against the bare limit."""
