"""The embedded table, `electricity_hourly_2014.csv`; origin and licence are in ATTRIBUTION.md."""
