"""The documentation as a site: `python -m docs` builds it into build/site."""
