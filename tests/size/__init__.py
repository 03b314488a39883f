"""How often the tool finds what is not there, and what is: its sentences, simulated.

``python -m tests.size`` (or ``make size``) runs every `Setting` of the modules ``settings_*.py`` and writes
``docs/size.md``; a few studies of each run in the tests. A setting is added by a module of that name with a
list ``SETTINGS``.
"""
