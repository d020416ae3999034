"""Does FuScore work as a training reward?"""
