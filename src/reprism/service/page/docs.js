// The API's documentation: Swagger UI, from files that the service itself serves.

/* global SwaggerUIBundle */
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  validatorUrl: null, // or the description would be sent to validator.swagger.io
});
