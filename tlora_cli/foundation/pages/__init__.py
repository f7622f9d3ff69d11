"""What the HTML pages share: one base, one style, one file each, nothing loaded from elsewhere."""
