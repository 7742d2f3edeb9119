"""A trained model as files that need only torch and safetensors.

`model.py` and `example.py` are what is taken home: they are written for whoever has nothing else of
this project, and import nothing of it but each other.
"""
