"""The page in the browser: studies and runs, live."""
