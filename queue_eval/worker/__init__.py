"""One asyncio process with many cases in flight: claim → permit → judge → store → finish."""
