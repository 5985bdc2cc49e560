"use strict";
Redoc.init("/openapi.json", { disableGoogleFont: true }, document.getElementById("ui"));
