"""What needs a package that only some users have, or serves only some of them: folders that build on no_time_to_train.

``no_time_to_train`` knows them by name only, and imports them where a command or an option asks for them.
"""
