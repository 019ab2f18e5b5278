from django.apps import AppConfig


class CompletionsConfig(AppConfig):
    """Who asks, what came back, what it cost."""

    name = "completions"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from completions import checks  # noqa: F401 - registers system checks
