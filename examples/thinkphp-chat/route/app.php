<?php
use think\facade\Route;

// longwire calls these; nobody else can, for they are signed.
Route::post('longwire/connect', 'Longwire/connect');
Route::post('longwire/open', 'Longwire/open');
Route::post('longwire/message', 'Longwire/message');
Route::post('longwire/close', 'Longwire/close');

// The page calls these.
Route::post('chat/login', 'Chat/login');
Route::get('chat/rooms', 'Chat/rooms');
Route::get('chat/history', 'Chat/history');
Route::get('chat/online', 'Chat/online');
Route::post('chat/send', 'Chat/send');
