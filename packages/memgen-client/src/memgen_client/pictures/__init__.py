"""Tables and pictures for notebooks, as HTML with inline SVG: no script, no network, every text escaped."""
