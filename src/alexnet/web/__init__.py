"""The page that shows a network at work on one picture: `scene.py` gathers what it needs,
`export.py` writes it as one file, `server.py` serves it, `page/` is what the browser runs.
"""
