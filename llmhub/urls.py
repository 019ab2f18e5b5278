"""Django's part of the front door."""

from django.contrib import admin
from django.contrib.auth.views import LogoutView
from django.urls import include, path

from completions.pages import SignIn, home, upgrade_required
from completions.playground import playground, prices

urlpatterns = [
    path("", home, name="home"),
    path("sign-in/", SignIn.as_view(), name="sign-in"),
    path("sign-out/", LogoutView.as_view(), name="sign-out"),
    path("playground/", playground, name="playground"),
    path("playground/prices/", prices, name="playground-prices"),
    path("admin/", admin.site.urls),
    path("api/", include("completions.urls")),
    path("ws/completions/", upgrade_required),
]
