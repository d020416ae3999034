"""FuScore: how good would a person find this infrared-visible fusion?"""

__version__ = "0.1.0"
