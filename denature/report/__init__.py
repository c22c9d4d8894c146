"""From records to tables, figures and one HTML file; pure functions of records."""

from denature.report.summary import Row, Summary, summarise

__all__ = ["Row", "Summary", "summarise"]
