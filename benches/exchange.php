<?php
// A backend that answers each message with what the client sent: the least that a controller can do.
$call = json_decode(file_get_contents('php://input'), true);
header('Content-Type: application/json');
echo json_encode(['data' => $call['data']]);
