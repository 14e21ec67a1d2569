"""The portal: the pages that clinicians and administrators use, in Chinese or English.

Pages are made here, whole, by Jinja2; htmx exchanges parts of them, and every page works without
it. Nothing is loaded from elsewhere, and no script or style stands inside a page.
"""
