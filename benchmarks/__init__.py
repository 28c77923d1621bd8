"""How fast it is: plain counterparts to compare with, and what ``lamanas bench`` measures. No service needs it."""
