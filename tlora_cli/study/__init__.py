"""`tlora study`: people choose blindly between adapters' pictures; votes, what they say."""
