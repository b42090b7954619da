for (const place of element.querySelectorAll(".ee-here")) place.textContent = location.origin;
