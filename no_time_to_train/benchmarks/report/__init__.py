"""Reports: finished runs next to the published figures, as Markdown, HTML, CSV and one plot per benchmark."""
